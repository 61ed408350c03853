//! The machine that limiter runs on: kernel, CPUs, randomness.

use super::error::Error;

/// What `uname -r` says.
pub(super) fn kernel_release() -> Result<String, Error> {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_err(Error::system("reading the kernel's version"))
}

/// Linux 5.19 has `bpf_map_lookup_percpu_elem` (commit 07343110b293), the
/// youngest thing that the program needs.
pub(super) fn check_kernel(release: &str) -> Result<(), Error> {
    let release = release.trim();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 19) {
        return Err(Error::OldKernel {
            release: release.to_owned(),
        });
    }
    Ok(())
}

/// CPUs that may ever be there: what a per-CPU map has values for.
pub(super) fn possible_cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(what, source)| Error::System {
        what: what.to_owned(),
        source,
    })
}

/// What nobody can guess.
pub(super) fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(Error::system("reading /dev/urandom"))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_5_19_are_refused_by_their_name() {
        for release in ["5.18.19-generic\n", "4.19.0-21-amd64", "5.4", "odd", ""] {
            let error = check_kernel(release).unwrap_err().to_string();
            let named = format!(
                "this kernel is {}, and limiter needs Linux 5.19",
                release.trim()
            );
            assert!(error.starts_with(&named), "{error}");
            assert!(error.ends_with("boot a newer kernel"), "{error}");
        }
        for release in ["5.19.0", "5.19.0-rc1+", "6.1.0-18-amd64\n", "10.0"] {
            check_kernel(release).unwrap();
        }
    }
}
