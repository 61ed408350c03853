//! Whose certificates are believed.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The roots in DER: those of the policy, else the system's, read anew for each job, so that
/// what is changed there counts at once.
///
/// # Errors
/// There are none.
pub(super) fn roots(
    certificates: Option<&[u8]>,
) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Vec<CertificateDer<'static>> = match certificates {
        Some(pem) => CertificateDer::pem_slice_iter(pem).flatten().collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    match (found.is_empty(), certificates) {
        (false, _) => Ok(found),
        (true, Some(_)) => Err("notify.ca_file has no certificate"),
        (true, None) => Err("the system trusts no certificates; install ca-certificates"),
    }
}
