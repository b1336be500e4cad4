use std::num::NonZeroUsize;
use std::thread;

/// What a manifest may cost whoever reads it.
///
/// A reader fails past a limit and never shortens. A writer refuses what a reader with the same
/// limits would refuse.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest size of a compressed archive, outer or inner, in bytes.
    pub archive_bytes: u64,
    /// Greatest size of the commit object, in bytes.
    pub commit_bytes: u64,
    /// Greatest number of entries in an archive, headers that extend others counted too.
    pub entries: u64,
    /// Greatest size of one entry, in bytes.
    pub entry_bytes: u64,
    /// Greatest size of the tree listing, in bytes. A check keeps the listing in memory.
    pub listing_bytes: u64,
    /// Greatest size of the build log, in bytes.
    pub log_bytes: u64,
    /// How many times larger than its compressed form an archive may be, once it is larger than
    /// [`Limits::ratio_from_bytes`].
    pub ratio: u64,
    /// Unpacked size in bytes up to which the ratio does not matter.
    pub ratio_from_bytes: u64,
    /// Greatest size of the build record, in bytes.
    pub record_bytes: u64,
    /// Greatest number of threads that compress or decompress side by side, each of which takes
    /// about 16 MiB. What is written and read is the same for any number; how far beyond a limit a
    /// refused archive is read may differ. By default, as many as the system says can run at once.
    pub threads: NonZeroUsize,
    /// Greatest unpacked size of an archive, in bytes.
    pub unpacked_bytes: u64,
}

impl Limits {
    /// Returns the limits of a thin manifest: those that the log and the listing leave room for.
    pub(crate) fn of_thin(&self) -> Self {
        Self {
            archive_bytes: self.archive_bytes.min(THIN_BYTES),
            entries: self.entries.min(THIN_ENTRIES),
            unpacked_bytes: self.unpacked_bytes.min(THIN_BYTES),
            ..*self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 4 * GIB,
            commit_bytes: MIB,
            // Eleven times the files of a Linux kernel.
            entries: 1_000_000,
            // The ustar size field has eleven octal digits.
            entry_bytes: 8 * GIB - 1,
            listing_bytes: 128 * MIB,
            log_bytes: 256 * MIB,
            // Source code packs 3- to 10-fold; bzip2 packs zeros 20,000-fold.
            ratio: 1_000,
            ratio_from_bytes: GIB,
            record_bytes: MIB,
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            unpacked_bytes: 16 * GIB,
        }
    }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A log and a listing of the greatest size, and as much again as the rest could ever need.
const THIN_BYTES: u64 = 512 * MIB;
/// A name of 4,096 bytes has at most 2,048 directories, each with an entry for a long name.
const THIN_ENTRIES: u64 = 4_200;
