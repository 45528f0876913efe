# %% [markdown]
# # A first student, and one more teacher
#
# kdkit distills several teachers into one student. Later it teaches the student what a new teacher knows, and checks
# that the student keeps the rest.
#
# This example runs on a CPU in one or two minutes. Nothing is downloaded: a program draws the images, and the teachers
# are tiny networks that were trained on such images.

# %%
import tempfile
from pathlib import Path

import kdkit

folder = Path(tempfile.mkdtemp()) / "my-project"

# %% [markdown]
# ## A project
#
# A project is a folder with a `registry.yaml`: student, data, teachers and recipe. This one has three imaging
# modalities. `Project.create` writes a registry with comments; here it is replaced by a short one.

# %%
project = kdkit.Project.create(folder)
(folder / "registry.yaml").write_text("""\
version: 1
use: research
student: {family: demo-student}
teachers: {}
data:
  - source: procedural
    path: data/first
    options: {seed: 0, train: 200, calibration: 60, test: 60, domains: [ct, mri, histology]}
prompts:
  default: ["{domain} showing {label}", "{label} on {domain}"]
optimizer: {lr: 0.004, batch_size: 64, epochs: 14}
recipe: kdkit
""")
project.check_data()

# %% [markdown]
# ## Teachers and trust
#
# `add_teacher` loads a teacher, checks its license and writes it into `registry.yaml`. `extract` stores its features of
# all samples. `trust` measures it on the calibration split: a teacher teaches only the domains that it knows.

# %%
project.add_teacher("demo-radio")
project.add_teacher("demo-tissue")
project.extract()
trust = project.trust()
trust

# %% [markdown]
# ## The first version
#
# `plan` shows what `distill` would do, and what it would cost.

# %%
print(project.plan())
first = project.distill()
first

# %% [markdown]
# ## One more teacher
#
# A new specialist knows OCT, which is new to the student. An increment starts from the current version. It rehearses
# old samples with the stored features of the old teachers. The guard refuses a version that forgets too much.

# %%
registry = folder / "registry.yaml"
registry.write_text(
    registry.read_text().replace(
        "prompts:",
        """\
  - source: procedural
    path: data/oct
    options: {seed: 0, train: 200, calibration: 60, test: 60, domains: [oct]}
prompts:""",
    )
)
project.add_teacher("demo-eye")
second = project.distill(incremental=True)
second

# %%
versions = project.versions()
versions

# %% [markdown]
# ## Evaluation
#
# The test split was not used so far. The report compares the student with its parent, every teacher and the oracle,
# which takes the best teacher of each domain.

# %%
report = project.evaluate()
report

# %% [markdown]
# ## The student as a model
#
# `load_student` returns the current version. `project.export("student")` writes a folder that stock open_clip loads.

# %%
student = project.load_student()
print(f"{sum(p.numel() for p in student.parameters()) / 1e6:.1f} million parameters")
