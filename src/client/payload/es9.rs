//! Bodies in the shape of ES9+ (SGP.22, section 6.5): JSON with base64 members, each exactly as
//! large as in a real download of a 12.5 kB profile.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{BPP_BYTES, Noise, bound_profile_package};

/// The four exchanges of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Challenge of the eUICC, signed answer of the SM-DP+.
    InitiateAuthentication,
    /// The eUICC proves itself and asks for its profile.
    AuthenticateClient,
    /// The eUICC's one-time key; the answer is the Bound Profile Package.
    GetBoundProfilePackage,
    /// The signed result of the installation; has no answer.
    HandleNotification,
}

impl Step {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [
        Self::InitiateAuthentication,
        Self::AuthenticateClient,
        Self::GetBoundProfilePackage,
        Self::HandleNotification,
    ];
}

/// What the device sends: 179, 1996, 297 or 266 bytes as JSON without blanks.
#[must_use]
pub fn request(step: Step, seed: u64) -> Value {
    let transaction = hex(&Noise(seed).bytes(16));
    let binary = |count| binary(&mut Noise(seed), count);
    match step {
        Step::InitiateAuthentication => sized(179, |pad| {
            json!({
                "smdpAddress": text("smdp.", pad),
                "euiccChallenge": binary(16),
                "euiccInfo1": binary(45),
            })
        }),
        Step::AuthenticateClient => sized(1996, |pad| {
            json!({
                "header": caller(pad),
                "transactionId": transaction,
                "authenticateServerResponse": binary(1350),
            })
        }),
        Step::GetBoundProfilePackage => sized(297, |pad| {
            json!({
                "header": caller(pad),
                "transactionId": transaction,
                "prepareDownloadResponse": binary(93),
            })
        }),
        Step::HandleNotification => {
            sized(266, |pad| json!({"header": caller(pad), "pendingNotification": binary(108)}))
        }
    }
}

/// What the server answers: 1221, 1291 or 16875 bytes; nothing to a notification. The third
/// carries a package that [`verify`](super::verify) accepts.
#[must_use]
pub fn answer(step: Step, seed: u64) -> Option<Value> {
    let transaction = hex(&Noise(seed).bytes(16));
    match step {
        Step::InitiateAuthentication => Some(sized(1221, |pad| {
            let mut noise = Noise(seed);
            json!({"header": executed(pad), "transactionId": transaction,
                "serverSigned1": binary(&mut noise, 78),
                "serverSignature1": binary(&mut noise, 67),
                "euiccCiPKIdToBeUsed": binary(&mut noise, 22),
                "serverCertificate": binary(&mut noise, 450)})
        })),
        Step::AuthenticateClient => Some(sized(1291, |pad| {
            let mut noise = Noise(seed);
            json!({"header": executed(pad), "transactionId": transaction,
                "profileMetadata": binary(&mut noise, 120),
                "smdpSigned2": binary(&mut noise, 50),
                "smdpSignature2": binary(&mut noise, 67),
                "smdpCertificate": binary(&mut noise, 450)})
        })),
        Step::GetBoundProfilePackage => Some(sized(16_875, |pad| {
            let bpp = bound_profile_package(seed, BPP_BYTES).unwrap_or_default();
            json!({"header": executed(pad), "transactionId": transaction,
                "boundProfilePackage": STANDARD.encode(bpp)})
        })),
        Step::HandleNotification => None,
    }
}

/// The value at which `make` gives exactly `bytes` of JSON: free text takes up the rest.
fn sized(bytes: usize, make: impl Fn(usize) -> Value) -> Value {
    let bare = make(0).to_string().len();
    make(bytes.saturating_sub(bare))
}

fn text(start: &str, pad: usize) -> String {
    format!("{start}{}", "x".repeat(pad))
}

fn binary(noise: &mut Noise, count: usize) -> String {
    STANDARD.encode(noise.bytes(count))
}

fn caller(pad: usize) -> Value {
    json!({"functionCallIdentifier": text("", pad)})
}

fn executed(pad: usize) -> Value {
    json!({"functionExecutionStatus": {"status": "Executed-Success"},
        "functionCallIdentifier": text("", pad)})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::verify;
    use super::*;

    #[test]
    fn bodies_have_the_sizes_of_a_real_download() {
        for seed in [0, 1, u64::MAX] {
            let requests = Step::ALL.map(|step| request(step, seed).to_string().len());
            assert_eq!(requests, [179, 1996, 297, 266]);
            let answers = Step::ALL.map(|step| answer(step, seed).map(|b| b.to_string().len()));
            assert_eq!(answers, [Some(1221), Some(1291), Some(16_875), None]);
        }
    }

    #[test]
    fn the_third_answer_carries_a_package() {
        let body = answer(Step::GetBoundProfilePackage, 9).unwrap();
        let bpp = STANDARD.decode(body["boundProfilePackage"].as_str().unwrap()).unwrap();
        assert_eq!(verify(&bpp).unwrap().total_bytes, BPP_BYTES);
    }
}
