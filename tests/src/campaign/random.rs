//! Random numbers that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator after Marsaglia's xorshift64*, good enough to choose moments and to make bytes that no filesystem compresses.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        // One step of splitmix64: neighbouring seeds must not give neighbouring numbers, and zero is not allowed.
        let mut state = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((state ^ (state >> 31)) | 1)
    }

    /// A seed for a run to which none was given.
    pub fn seed() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |since| u64::from(since.subsec_micros()) + since.as_secs() % 1000 * 1_000_000)
    }

    /// A seed that is the same all day long, by UTC.
    pub fn seed_of_the_day() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |since| since.as_secs() / 86_400)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.number() % (most - least + 1)
    }

    /// Whether something happens that happens in this many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of these; `None` when there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let last = from.len().checked_sub(1)?;
        from.get(usize::try_from(self.between(0, last as u64)).unwrap_or(0))
    }

    /// A size up to `most` bytes (at least a megabyte), of which a tenth is as likely as the whole.
    pub fn size(&mut self, most: u64) -> u64 {
        let doublings = u64::from((most >> 20).max(1).ilog2());
        let floor = 1 << (20 + self.between(0, doublings));
        (floor + self.between(0, floor)).min(most.max(1 << 20))
    }

    /// This many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for chunk in bytes.chunks_mut(8) {
            let number = self.number().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
        bytes
    }

    /// Another generator: for a thread of its own.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }
}
