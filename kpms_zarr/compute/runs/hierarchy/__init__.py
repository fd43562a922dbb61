"""Which syllables are alike, and syllables that become one."""
