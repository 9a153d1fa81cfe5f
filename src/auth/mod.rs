//! Who may come in and what a client may do, as pure data: read from files, asked without locks.

mod acl;
mod enhanced;
mod filter;
mod password;
mod scram;
mod stored;

pub use acl::{ACL_BYTES_MAX, Acl, AclFault, AclMistake, Rights};
pub use enhanced::{Exchange, Fault, Method, Nonce, Step};
pub use password::{
    Disguise, PASSWORD_FILE_BYTES_MAX, PasswordFault, PasswordMistake, Passwords, check_user_name,
};
pub use scram::ScramSha256;
pub use stored::{Scheme, Stored, StoredFault};
