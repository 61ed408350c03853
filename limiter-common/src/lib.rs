//! What the kernel program and the control plane share.
#![no_std]
