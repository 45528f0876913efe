"""A Hub of our own on the loopback interface, for tests: the protocol that ``huggingface_hub`` 2.x speaks.

    with local_hub(tmp_path, accounts=[Account("alice", token="hf_alice")]) as hub:
        HfApi(endpoint=hub.url, token="hf_alice").create_repo("alice/student", private=True)
        hub.fail("POST .*/commit/", status=503, times=2)

It proves our side of the protocol, not the policies of huggingface.co.
"""

from tests.local_hub.faults import Fault
from tests.local_hub.http import Recorded
from tests.local_hub.server import ALICE, LocalHub, local_hub
from tests.local_hub.state import Account, Commit, File, Repository

__all__ = ["ALICE", "Account", "Commit", "Fault", "File", "LocalHub", "Recorded", "Repository", "local_hub"]
