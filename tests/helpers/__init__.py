"""What several tests need: browsers, files of every format and how they get damaged."""
