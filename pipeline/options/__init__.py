"""What settings mean: paths beside their file, and what other programs call them."""
