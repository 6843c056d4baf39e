"""DPO that reads each long prompt once: two answers on one row, exactly as if each stood alone."""
