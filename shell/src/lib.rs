//! `pegasus`, the shell: onebox, tables, rows, import and export, as commands and at a prompt.
//!
//! It knows the cluster only through the client library, and must never import a server package.
//!
//! Code map: `cli` is the command line, `commands` has a file per noun, `prompt` is the interactive mode and
//! `completion` helps to type there, `transfer` moves rows between tables and files, `onebox` runs a cluster on this
//! machine, `escape` is how bytes are shown and typed, `nodes` how nodes are called, `units` how sizes and times are
//! written, `output` prints.

pub mod cli;
pub mod commands;
pub mod completion;
pub mod context;
pub mod escape;
pub mod nodes;
pub mod onebox;
pub mod output;
pub mod prompt;
pub mod transfer;
pub mod units;
pub mod words;
