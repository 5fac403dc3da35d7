//! The work: a SHA-256 chain, which nobody can shorten and anyone can verify.

use std::{fmt, slice};

use sha2::block_api::compress256;

/// The initial hash value of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A chain of SHA-256 hashes: it starts from 32 zero bytes, and each iteration hashes the 32 bytes
/// of the previous one.
#[derive(Default)]
pub struct Chain {
    digest: Digest,
    iterations: u64,
}

impl Chain {
    /// Makes `count` more iterations.
    pub fn extend(&mut self, count: u64) {
        let mut message = self.digest.0;
        for _ in 0..count {
            // A message of 32 bytes and its padding fill one block. The general interface of the
            // library assembles that block for each hash, a third slower.
            let mut block = [0; 64];
            block[..32].copy_from_slice(&message);
            block[32] = 0x80;
            block[56..].copy_from_slice(&256_u64.to_be_bytes());
            let mut state = INITIAL;
            compress256(&mut state, slice::from_ref(&block));
            message = bytes(state);
        }
        self.digest.0 = message;
        self.iterations += count;
    }

    /// The number of iterations so far.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    /// The hash of the last iteration.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The bytes of a state. Written out, because a build for size keeps a loop, which is a tenth
/// slower.
fn bytes([a, b, c, d, e, f, g, h]: [u32; 8]) -> [u8; 32] {
    let words = [
        a.to_be_bytes(),
        b.to_be_bytes(),
        c.to_be_bytes(),
        d.to_be_bytes(),
        e.to_be_bytes(),
        f.to_be_bytes(),
        g.to_be_bytes(),
        h.to_be_bytes(),
    ];
    let mut bytes = [0; 32];
    bytes.copy_from_slice(words.as_flattened());
    bytes
}

/// A hash, displayed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    #[test]
    fn a_chain_equals_that_of_the_general_interface_of_sha_256() {
        let mut chain = Chain::default();
        let mut expected = [0; 32];
        for count in [0, 1, 2, 997] {
            chain.extend(count);
            for _ in 0..count {
                expected = Sha256::digest(expected).into();
            }
            assert_eq!(
                chain.digest(),
                Digest(expected),
                "after {}",
                chain.iterations()
            );
        }
        // From Python's hashlib.
        let known = "36c1cb4f826ae42ceba848227e0c5f786178ca9dceca6772e5d728d09c30a2f6";
        assert_eq!(chain.iterations(), 1000);
        assert_eq!(chain.digest().to_string(), known);
    }
}
