//! What is written down is all that there is.
