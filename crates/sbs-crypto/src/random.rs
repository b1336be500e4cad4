/// Fills `bytes` from the random generator of the cryptographic library, which the operating
/// system seeds.
pub fn fill_random(bytes: &mut [u8]) {
    // Not an error to handle: a program that has no random bytes must not go on to make keys.
    aws_lc_rs::rand::fill(bytes).expect("the operating system gives random bytes");
}

/// Returns `N` random bytes.
///
/// For secrets prefer [`fill_random`] into a buffer that is wiped: an array is copied when moved.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn does_not_repeat_itself() {
        let drawn: HashSet<[u8; 16]> = (0..1000).map(|_| random_bytes()).collect();
        assert_eq!(drawn.len(), 1000);
    }

    #[test]
    fn fills_the_whole_buffer() {
        // Each of 64 bytes stays zero in all of 32 draws with a chance of 2^-256.
        let mut seen = [0; 64];
        for _ in 0..32 {
            for (sum, byte) in seen.iter_mut().zip(random_bytes::<64>()) {
                *sum |= byte;
            }
        }
        assert!(seen.iter().all(|&byte| byte != 0));
    }
}
