"""What several sources share in reading annotations: archives, named files, label files, masks."""
