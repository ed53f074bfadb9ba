"""What the patterns say of the microscope before anything is reconstructed."""
