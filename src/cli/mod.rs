//! One file per subcommand.

<<<<<<< HEAD
pub mod keygen;
pub mod source;
pub mod tail;
pub mod verify;
=======
pub mod check;
>>>>>>> 5008d46b572b4405ea6a7b957480f75619443a5d
