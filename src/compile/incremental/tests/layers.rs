//! Which layers an edit runs, and that nothing stays behind.
