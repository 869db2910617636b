"""What a layer is and how a net runs."""
