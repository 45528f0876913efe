"""``kdkit sweep``: variations of recipe, teachers, trust or data, trained over seeds and compared."""
