//! The chain, computed natively.

use sha2::{Digest, Sha256};

/// The digest of so many iterations, in hexadecimal.
pub fn digest(iterations: u64) -> String {
    let chain = (0..iterations).fold([0; 32], |bytes, _| Sha256::digest(bytes).into());
    chain.iter().map(|byte| format!("{byte:02x}")).collect()
}
