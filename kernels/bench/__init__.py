"""Speed of the selective scan: cases, contenders, measurement, and the command that runs them."""
