"""Label Studio's ML backend interface: its smart tools ask, and get brush regions."""
