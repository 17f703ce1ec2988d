//! The challenger: its decisions as a table, and its deeds on an embedded Bitcoin.

mod deeds;
mod hook;
mod hostile;
mod table;
mod town;
