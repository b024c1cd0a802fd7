"""What is known about a patient: graded findings, the description, and what a text claims about them."""
