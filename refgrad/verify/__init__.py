"""Is this backward rule right, and if not, where?"""
