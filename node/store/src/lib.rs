//! RocksDB tables, one atomic write per block, exact undo.
