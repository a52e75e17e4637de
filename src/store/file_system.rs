//! Which file systems can hold a local store: those whose locks and shared memory all parties see, because one kernel
//! serves them all.

use std::path::Path;

use super::files;
use crate::error::{Error, Result};

/// Refuses a directory on a file system that several machines share.
pub fn refuse_network(directory: &Path) -> Result<()> {
    let network = network(directory).map_err(|error| files::explain("examine", directory, &error))?;
    match network {
        None => Ok(()),
        Some(name) => Err(Error::store(format!(
            "{} is on {name}, a network file system, whose locks cannot keep two machines from spending one refresh \
             token: set store to a path on a local disk, or to a shared store (postgres://… or redis://…).",
            directory.display()
        ))),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn network(directory: &Path) -> std::io::Result<Option<String>> {
    use std::os::unix::fs::MetadataExt;

    let kind = rustix::fs::statfs(directory)?.f_type as u32;
    if kind != FUSE {
        return Ok(network_by_number(kind).map(str::to_owned));
    }
    let device = std::fs::metadata(directory)?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = mounted_type(&mounts, rustix::fs::major(device), rustix::fs::minor(device)).unwrap_or("fuse");
    Ok(is_network_fuse(name).then(|| name.to_owned()))
}

#[cfg(target_vendor = "apple")]
fn network(directory: &Path) -> std::io::Result<Option<String>> {
    const MNT_LOCAL: u32 = 0x1000;
    let local = rustix::fs::statfs(directory)?.f_flags & MNT_LOCAL != 0;
    Ok((!local).then(|| "a volume that is not local".to_owned()))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn network(_directory: &Path) -> std::io::Result<Option<String>> {
    Ok(None)
}

#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
const FUSE: u32 = 0x6573_5546;

/// By statfs's `f_type`.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
fn network_by_number(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x6969 => "NFS",
        0x517B | 0xFE53_4D42 => "SMB",
        0xFF53_4D42 => "CIFS",
        0x0102_1997 => "9P",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0xAAD7_AAEA => "PanFS",
        // Folders of a virtual machine's host.
        0x786F_4256 => "vboxsf",
        0xBACB_ACBC => "vmhgfs",
        0x7C7C_6673 => "prl_fs",
        _ => return None,
    })
}

/// FUSE file systems are local unless they are known not to be.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
fn is_network_fuse(name: &str) -> bool {
    const NETWORK: &[&str] = &[
        "virtiofs",
        "sshfs",
        "s3fs",
        "mount-s3",
        "mountpoint-s3",
        "goofys",
        "geesefs",
        "gcsfuse",
        "blobfuse",
        "blobfuse2",
        "rclone",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "cephfs",
        "davfs",
        "davfs2",
        "curlftpfs",
        "hdfs",
        "juicefs",
        "mfs",
        "moosefs",
        "saunafs",
        "lizardfs",
        "seaweedfs",
        "beegfs",
        "alluxio",
        "nfs",
        "smbnetfs",
        "cifs",
        "afs",
        "gvfsd-fuse",
        "kio-fuse",
        "grpcfuse",
        "osxfs",
        "vmhgfs-fuse",
        "prl_fsd",
        "onedriver",
        "google-drive-ocamlfuse",
    ];
    let name = name.strip_prefix("fuse.").unwrap_or(name);
    // s3fs and sshfs variants call themselves sshfs#user@host and the like.
    let name = name.split(['#', ':']).next().unwrap_or(name).to_ascii_lowercase();
    NETWORK.contains(&name.as_str())
}

/// The type of the file system with this device number in the text of /proc/self/mountinfo.
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
fn mounted_type(mounts: &str, major: u32, minor: u32) -> Option<&str> {
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == device).then(|| file_system.split(' ').next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        for kind in [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x00C3_6400, 0x0BD0_0BD0] {
            assert!(network_by_number(kind).is_some(), "{kind:x}");
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs, bcachefs, f2fs
        let local = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xCA45_1A4E, 0xF2F5_2010];
        for kind in local {
            assert_eq!(network_by_number(kind), None, "{kind:x}");
        }
    }

    #[test]
    fn fuse_is_told_by_its_name() {
        for name in ["virtiofs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.ceph-fuse"] {
            assert!(is_network_fuse(name), "{name}");
        }
        for name in ["fuse", "fuseblk", "fuse.gocryptfs", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.lxcfs"] {
            assert!(!is_network_fuse(name), "{name}");
        }
    }

    #[test]
    fn mountinfo_is_read() {
        let mounts = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      91 29 0:48 / /mnt/a\\040b rw,nosuid shared:7 master:2 - fuse.sshfs me@host:/ rw,user_id=0\n";
        assert_eq!(mounted_type(mounts, 0, 48), Some("fuse.sshfs"));
        assert_eq!(mounted_type(mounts, 254, 0), Some("ext4"));
        assert_eq!(mounted_type(mounts, 0, 4), None);
    }

    #[test]
    fn this_machine_is_examined() {
        assert!(refuse_network(&std::env::temp_dir()).is_ok());
        assert!(refuse_network(Path::new("/does/not/exist")).is_err());
    }
}
