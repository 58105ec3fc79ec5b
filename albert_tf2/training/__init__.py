"""What both kinds of training share."""
