def check_tune(text): return None
