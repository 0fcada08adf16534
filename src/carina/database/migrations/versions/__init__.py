"""One module for each version; none is changed once it was released."""
