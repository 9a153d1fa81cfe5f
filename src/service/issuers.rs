//! CI certificates: whose eUICCs are believed when they say that a profile is deleted.

use std::path::{Path, PathBuf};

use x509_parser::pem::parse_x509_pem;

use super::files::{FileError, broken, read};
use crate::rsp::proof::{ISSUERS_MAX, PROOF_BYTES_MAX, TrustedIssuers};

/// Largest file: as many certificates as may be trusted, none of them small.
const FILE_BYTES_MAX: usize = ISSUERS_MAX * PROOF_BYTES_MAX;
const CERTIFICATE: &str = "CERTIFICATE";
const BEGIN: &[u8] = b"-----BEGIN ";

/// The certificate issuers in PEM files, all of which have to be in order.
///
/// # Errors
/// [`FileError`] names the file and the line of each certificate that cannot be trusted.
pub fn trusted_issuers(paths: &[PathBuf]) -> Result<TrustedIssuers, FileError> {
    let mut issuers = TrustedIssuers::default();
    for path in paths {
        add_file(&mut issuers, path)?;
    }
    Ok(issuers)
}

fn add_file(issuers: &mut TrustedIssuers, path: &Path) -> Result<(), FileError> {
    let bytes = read(path, FILE_BYTES_MAX)?;
    let faulty = |faults: Vec<(usize, String)>| broken(path, faults.into_iter());
    if bytes.len() > FILE_BYTES_MAX {
        return Err(faulty(vec![(1, format!("more than {FILE_BYTES_MAX} bytes"))]));
    }
    let blocks = blocks(&bytes);
    if blocks.is_empty() {
        return Err(faulty(vec![(1, "there is no certificate in it".to_owned())]));
    }
    let fault = |(line, block)| Some((line, add(issuers, block).err()?));
    let faults: Vec<_> = blocks.into_iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(faulty(faults)) }
}

/// Everything from the beginning of each PEM block on, with the number of its line.
fn blocks(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut rest = bytes;
    let mut blocks = Vec::new();
    for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if line.starts_with(BEGIN) {
            blocks.push((at + 1, rest));
        }
        rest = &rest[line.len()..];
    }
    blocks
}

fn add(issuers: &mut TrustedIssuers, block: &[u8]) -> Result<(), String> {
    let (_, block) =
        parse_x509_pem(block).map_err(|_error| "not PEM; copy the certificate again".to_owned())?;
    if block.label != CERTIFICATE {
        return Err(format!("a {}; leave certificates alone in it", block.label));
    }
    issuers.add(&block.contents).map_err(|error| error.to_string())
}
