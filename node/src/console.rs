//! Standard output of what runs until it is told to stop.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

/// Prints a line. That nobody reads standard output any more, or that its disk is full, must not stop who guards
/// money.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
