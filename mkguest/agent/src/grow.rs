//! mvm-grow: makes a mounted ext4 as large as its block device. Making the device larger,
//! and mounting it, is left to whoever calls it.
//!
//! Fields of the superblock are those of "Super Block" in the kernel's ext4 documentation.

use crate::sys;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const USAGE: &str = "usage: mvm-grow MOUNTPOINT DEVICE";

const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 1024;
const MAGIC: u16 = 0xef53;
/// INCOMPAT_64BIT: numbers of blocks have 64 bits.
const WIDE: u32 = 0x80;

/// The program: done if there is nothing to do, too; the error is for standard error.
pub fn main(arguments: &[OsString]) -> Result<(), String> {
    let [mount_point, device] = arguments else {
        return Err(USAGE.to_owned());
    };
    let (mount_point, device) = (Path::new(mount_point), Path::new(device));
    grow(mount_point, device).map_err(|error| {
        format!(
            "{} does not grow to the size of {}: {error}",
            mount_point.display(),
            device.display()
        )
    })
}

fn grow(mount_point: &Path, device: &Path) -> Result<(), String> {
    let step = |what: &'static str| move |error| format!("cannot {what}: {error}");
    let root = File::open(mount_point).map_err(step("open the mount point"))?;
    let device = File::open(device).map_err(step("open the device"))?;
    let mounted = root.metadata().map_err(step("look at the mount point"))?;
    let itself = device.metadata().map_err(step("look at the device"))?;
    if mounted.dev() != itself.rdev() {
        return Err("the device is not what is mounted there".to_owned());
    }
    let mut superblock = [0; SUPERBLOCK_SIZE];
    device
        .read_exact_at(&mut superblock, SUPERBLOCK_AT)
        .map_err(step("read the superblock"))?;
    let size = sys::device_size(device.as_fd()).map_err(step("tell the device's size"))?;
    match blocks_to_grow_to(&superblock, size)? {
        None => Ok(()),
        Some(blocks) => sys::resize_ext4(root.as_fd(), blocks).map_err(step("resize it")),
    }
}

/// How many blocks the filesystem with this superblock is to have on a device of `size`
/// bytes; None if it has as many, or more. The error says why it is none to grow.
fn blocks_to_grow_to(
    superblock: &[u8; SUPERBLOCK_SIZE],
    size: u64,
) -> Result<Option<u64>, &'static str> {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| superblock[at + byte]));
    if word(0x38) as u16 != MAGIC {
        return Err("it holds no ext4");
    }
    let block = 1024_u64
        .checked_shl(word(0x18))
        .filter(|&block| (1024..=65536).contains(&block))
        .ok_or("its superblock makes no sense")?;
    let (blocks, most) = if word(0x60) & WIDE == 0 {
        (word(0x4).into(), u32::MAX.into())
    } else {
        (
            (u64::from(word(0x150)) << 32) | u64::from(word(0x4)),
            u64::MAX,
        )
    };
    let wanted = (size / block).min(most);
    Ok((wanted > blocks).then_some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// A superblock with this many blocks of `1024 << logarithm` bytes.
    fn superblock(blocks: u64, logarithm: u32, features: u32) -> [u8; SUPERBLOCK_SIZE] {
        let mut superblock = [0; SUPERBLOCK_SIZE];
        let mut set = |at: usize, value: u32| {
            superblock[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        set(0x4, blocks as u32);
        set(0x150, (blocks >> 32) as u32);
        set(0x18, logarithm);
        set(0x38, MAGIC.into());
        set(0x60, features);
        superblock
    }

    #[test]
    fn it_grows_to_the_whole_blocks_of_the_device() {
        let small = superblock(4096, 2, WIDE);
        assert_eq!(blocks_to_grow_to(&small, 64 * MIB), Ok(Some(16384)));
        assert_eq!(blocks_to_grow_to(&small, 64 * MIB + 4095), Ok(Some(16384)));
        assert_eq!(
            blocks_to_grow_to(&superblock(4096, 0, 0), 64 * MIB),
            Ok(Some(65536))
        );
    }

    #[test]
    fn there_is_nothing_to_do_on_a_device_of_its_size_or_less() {
        let full = superblock(4096, 2, WIDE);
        for size in [0, 8 * MIB, 16 * MIB, 16 * MIB + 4095] {
            assert_eq!(blocks_to_grow_to(&full, size), Ok(None));
        }
    }

    #[test]
    fn numbers_of_blocks_have_64_bits_only_where_the_superblock_says_so() {
        let huge = u64::MAX;
        let blocks = (1 << 32) + 5;
        let wide = superblock(blocks, 2, WIDE);
        assert_eq!(blocks_to_grow_to(&wide, blocks * 4096), Ok(None));
        assert_eq!(blocks_to_grow_to(&wide, huge), Ok(Some(huge / 4096)));
        let narrow = superblock(blocks, 2, 0);
        assert_eq!(blocks_to_grow_to(&narrow, huge), Ok(Some(u32::MAX.into())));
    }

    #[test]
    fn what_is_no_ext4_is_refused() {
        let nothing = [0; SUPERBLOCK_SIZE];
        assert!(blocks_to_grow_to(&nothing, MIB).is_err());
        for logarithm in [7, 63, 64, u32::MAX] {
            assert!(blocks_to_grow_to(&superblock(1, logarithm, 0), MIB).is_err());
        }
    }
}
