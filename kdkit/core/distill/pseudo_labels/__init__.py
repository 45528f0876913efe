"""Answers that become data: of a trusted teacher to open questions, and corrections of what the student gets wrong."""
