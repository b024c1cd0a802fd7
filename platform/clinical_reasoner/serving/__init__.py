"""The endpoint's own work: requests, answers, problems and the student-or-teacher decision. Plain Python, no Ray."""
