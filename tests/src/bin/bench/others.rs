//! The programs beside limiter: those of the rig, and Debian's xdp-filter.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{PerCpuArray, PerCpuHashMap, PerCpuValues, ProgramArray},
    programs::{ProgramInfo, Xdp, loaded_programs},
};
use limiter_tests::programs::{OBJECT, program};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{net::Ipv4Addr, path::PathBuf, thread};

/// A loaded XDP program.
pub(crate) struct Other {
    pub(crate) ebpf: Ebpf,
    name: &'static str,
}

impl Other {
    /// One of the rig's own: `floor`, `bare`.
    pub(crate) fn own(name: &'static str) -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("loading the rig's object")?;
        load(&mut ebpf, name)?;
        Ok(Self { ebpf, name })
    }

    /// What gives a frame a source out of `count` from `first` on (in turn, or
    /// at random) before it hands it to the program with the number `next`.
    pub(crate) fn rotating(first: u32, count: u32, random: bool, next: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("FIRST", &first, true)
            .override_global("SOURCES", &count, true)
            .override_global("RANDOM", &u32::from(random), true)
            .override_global("TRANSPORT_CHECKSUM", &50_u32, true)
            .load(OBJECT)
            .context("loading the rig's object")?;
        load(&mut ebpf, "rotate")?;
        let mut table = ProgramArray::try_from(ebpf.map_mut("NEXT").context("no map NEXT")?)?;
        let target = info(next)?.fd()?;
        table.set(0, &target, 0).context("chaining two programs")?;
        let name = "rotate";
        Ok(Self { ebpf, name })
    }

    /// The number by which the kernel knows it.
    pub(crate) fn id(&mut self) -> Result<u32> {
        Ok(program(&mut self.ebpf, self.name)?.info()?.id())
    }

    /// Runs copies of a frame; returns the last one's action and nanoseconds
    /// for each.
    pub(crate) fn run(&self, frame: &[u8], packets: u32) -> Result<(u32, f64)> {
        let program = self.ebpf.program(self.name).context("no such program")?;
        let program: &Xdp = program.try_into()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: packets,
            ..TestRunOptions::new()
        };
        let run = program.test_run(options).context("running a program")?;
        Ok((run.return_value, run.duration.as_nanos() as f64))
    }

    /// The same with an action that it must return.
    pub(crate) fn time(&self, frame: &[u8], packets: u32, action: u32) -> Result<f64> {
        let (met, ns) = self.run(frame, packets)?;
        ensure!(met == action, "{} returned {met}", self.name);
        Ok(ns)
    }
}

/// xdp-filter by itself, without the dispatcher that its own loader puts before
/// it (which would cost it some nanoseconds more), with one source that it
/// drops. All else passes.
pub(crate) struct XdpFilter(pub(crate) Other);

impl XdpFilter {
    /// What `xdp-filter load -f ipv4` takes: the smallest that can do it.
    pub(crate) const IPV4: &str = "xdpfilt_alw_ip";
    /// What `xdp-filter load` takes.
    pub(crate) const FULL: &str = "xdpfilt_alw_all";

    pub(crate) fn new(name: &'static str, source: Ipv4Addr) -> Result<Self> {
        let file = object(name)?;
        // It pins its maps by name. In a mount namespace that ends with the
        // thread nobody sees that, and nothing is left of it.
        let loading = || {
            unshare(CloneFlags::CLONE_NEWNS).context("leaving the mounts")?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount::<str, str, str, str>(None, "/", None, private, None)?;
            let bpf = Some("bpf");
            mount::<str, str, str, str>(bpf, "/sys/fs/bpf", bpf, MsFlags::empty(), None)
                .context("mounting a BPF file system")?;
            let mut ebpf = EbpfLoader::new()
                .load_file(&file)
                .with_context(|| format!("loading {}", file.display()))?;
            load(&mut ebpf, name)?;
            Ok(ebpf)
        };
        let loaded: Result<Ebpf> = match thread::scope(|scope| scope.spawn(loading).join()) {
            Ok(loaded) => loaded,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let mut filter = Self(Other {
            ebpf: loaded?,
            name,
        });
        filter.deny(source)?;
        Ok(filter)
    }

    fn deny(&mut self, source: Ipv4Addr) -> Result<()> {
        /// `MAP_FLAG_SRC` of its header `common_kern_user.h`.
        const SOURCE: u64 = 1;
        let map = self
            .0
            .ebpf
            .map_mut("filter_ipv4")
            .context("no map filter_ipv4")?;
        let mut map = PerCpuHashMap::<_, u32, u64>::try_from(map)?;
        let cpus =
            aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
        let everywhere = PerCpuValues::try_from(vec![SOURCE; cpus])?;
        let key = u32::from_ne_bytes(source.octets());
        map.insert(key, everywhere, 0).context("filtering a source")
    }

    /// Packets passed and dropped so far.
    pub(crate) fn passed_and_dropped(&self) -> Result<[u64; 2]> {
        let map = self
            .0
            .ebpf
            .map("xdp_stats_map")
            .context("no map xdp_stats_map")?;
        let map = PerCpuArray::<_, [u64; 2]>::try_from(map)?;
        let packets = |action| -> Result<u64> {
            let counts = map.get(&action, 0)?;
            Ok(counts.iter().map(|[packets, _bytes]| packets).sum())
        };
        Ok([
            packets(crate::limiter::PASS)?,
            packets(crate::limiter::DROP)?,
        ])
    }

    /// [`Other::time`], with its own counters checked.
    pub(crate) fn time(&self, frame: &[u8], packets: u32, action: u32) -> Result<f64> {
        let before = self.passed_and_dropped()?;
        let ns = self.0.time(frame, packets, action)?;
        let after = self.passed_and_dropped()?;
        let moved = [after[0] - before[0], after[1] - before[1]];
        let all = u64::from(packets);
        let expected = if action == crate::limiter::PASS {
            [all, 0]
        } else {
            [0, all]
        };
        ensure!(moved == expected, "{moved:?} passed and dropped");
        Ok(ns)
    }
}

/// Where Debian's package has an object.
fn object(name: &str) -> Result<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").context("listing /usr/lib")?;
    let mut places: Vec<PathBuf> = libraries.flatten().map(|it| it.path()).collect();
    places.extend(["/usr/lib".into(), "/usr/lib64".into()]);
    let file = format!("bpf/{name}.o");
    let found = places
        .iter()
        .map(|it| it.join(&file))
        .find(|it| it.is_file());
    found.with_context(|| format!("no {file} below /usr/lib: install xdp-tools"))
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    program(ebpf, name)?
        .load()
        .with_context(|| format!("loading {name}"))
}

/// The loaded program with a number.
fn info(id: u32) -> Result<ProgramInfo> {
    let found = loaded_programs().flatten().find(|info| info.id() == id);
    found.with_context(|| format!("no program {id}"))
}
