//! Who may come in and what a client may do, as pure data: read from files, asked without locks.

mod enhanced;
mod password;
mod scram;
mod stored;

pub use enhanced::{Exchange, Fault, Method, Nonce, Step};
pub use password::{
    Disguise, PASSWORD_FILE_BYTES_MAX, PasswordFault, PasswordMistake, Passwords, check_user_name,
};
pub use scram::ScramSha256;
pub use stored::{Scheme, Stored, StoredFault};
