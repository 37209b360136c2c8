"""What a run on disk gives to PyTorch: `presampled` noise."""
