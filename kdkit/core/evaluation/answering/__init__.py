"""Answers of a student or teacher to samples: the plain one, or one of several that is chosen (SASG of ClinKD).

:mod:`answer` is the command, :mod:`rules` and :mod:`gate` say which answer is chosen and where choosing helps.
"""
