"""A chest phantom and a loopback PACS, for our tests and for users' tests."""
