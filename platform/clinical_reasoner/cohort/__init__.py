"""Where patients come from: one reader per study, subject-level splits, and the synthetic cohort."""
