"""From scans to numbers: opening images safely, regional volumes and shapes from label maps and FreeSurfer's tables."""
