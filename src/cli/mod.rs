//! One file per subcommand.

pub mod keygen;
pub mod source;
pub mod tail;
pub mod verify;
