//! The kernel and its BPF, one feature after the other, and then the program
//! itself.

use super::finding::{About, Finding, Level};
use crate::dataplane::probe::{self, Answer, Feature, Proof};

/// What the kernel was seen to have.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// As `uname -r` says.
    pub(super) release: String,
    /// Whether it is new enough; else why not.
    pub(super) age: Result<(), String>,
    /// `None`: without the rights nothing was tried.
    pub(super) tried: Option<Tried>,
    /// `net.core.bpf_jit_enable`, where it may be read.
    pub(super) jit: Option<u32>,
}

/// What was tried.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    /// One by one.
    pub(super) features: Vec<Feature>,
    /// The program, or why it does not load.
    pub(super) load: Result<Proof, String>,
}

impl Facts {
    pub(super) fn read(may_load: bool) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
        Self {
            age: probe::check_release(&release).map_err(|error| error.to_string()),
            release: release.trim().to_owned(),
            tried: may_load.then(|| Tried {
                features: probe::features(),
                load: probe::load().map_err(|error| error.to_string()),
            }),
            jit: jit.and_then(|text| text.trim().parse().ok()),
        }
    }

    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut about = About::new("kernel");
        match &self.age {
            Ok(()) => about.ok(format!(
                "Linux {}, 5.19 or later is needed (BPF links on interfaces, 5.9, show only when \
                 one is made)",
                self.release
            )),
            Err(error) => about.mend(Level::Stops, error, "boot a newer kernel"),
        }
        match self.jit {
            Some(0) => about.mend(
                Level::Warning,
                "BPF programs are interpreted, which takes several times as long",
                "sysctl -w net.core.bpf_jit_enable=1",
            ),
            Some(_) => about.ok("BPF programs are compiled"),
            None => about.note("whether BPF programs are compiled is not to be seen"),
        }
        let mut found = about.findings();
        found.extend(self.bpf());
        found
    }

    fn bpf(&self) -> Vec<Finding> {
        let mut about = About::new("BPF");
        let Some(tried) = &self.tried else {
            about.note("nothing can be tried without the rights");
            return about.findings();
        };
        for Feature {
            name,
            since,
            answer,
        } in &tried.features
        {
            match answer {
                Answer::There => about.ok(format!("{name} ({since})")),
                Answer::Missing => about.mend(
                    Level::Stops,
                    format!("{name}: missing; Linux {since} has it"),
                    "boot a newer kernel, or one built with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and \
                     CONFIG_XDP_SOCKETS as distributions do",
                ),
                Answer::Unseen(why) => about.note(format!("{name}: not to be seen: {why}")),
            }
        }
        match &tried.load {
            Ok(proof) => about.ok(in_words(proof)),
            Err(error) => about.say(Level::Stops, error.clone(), None),
        }
        about.findings()
    }
}

fn in_words(proof: &Proof) -> String {
    let followed = match proof.instructions {
        Some(instructions) => format!("the verifier followed {instructions} instructions"),
        None => "the verifier accepts it".to_owned(),
    };
    let step_us = proof.step_ns / 1_000;
    format!("the program loads: {followed}; a step of its clock takes {step_us} µs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            release: "6.1.0-18-amd64".to_owned(),
            age: Ok(()),
            tried: Some(Tried {
                features: vec![Feature {
                    name: "ring buffers",
                    since: "5.8",
                    answer: Answer::There,
                }],
                load: Ok(Proof {
                    instructions: Some(200_000),
                    step_ns: 4_000_000,
                }),
            }),
            jit: Some(1),
        }
    }

    fn levels(facts: &Facts) -> Vec<Level> {
        facts.judge().iter().map(|it| it.level).collect()
    }

    #[test]
    fn all_is_well() {
        assert_eq!(levels(&facts()), [Level::Ok; 4]);
        let found = facts().judge();
        assert!(found[3].what.contains("200000 instructions"));
        assert!(found[3].what.contains("4000 µs"));
    }

    #[test]
    fn an_old_kernel_and_what_it_lacks() {
        let mut old = facts();
        old.age = Err("this kernel is 5.10.0".to_owned());
        old.jit = Some(0);
        let tried = old.tried.as_mut().unwrap();
        tried.features[0].answer = Answer::Missing;
        tried.load = Err("the XDP program cannot be loaded: no".to_owned());
        let expected = [Level::Stops, Level::Warning, Level::Stops, Level::Stops];
        assert_eq!(levels(&old), expected);
        let found = old.judge();
        assert!(found[2].what.contains("ring buffers: missing; Linux 5.8"));
        assert!(found[..3].iter().all(|it| it.mend.is_some()));
    }

    #[test]
    fn without_rights_nothing_is_claimed() {
        let mut blind = facts();
        blind.tried = None;
        blind.jit = None;
        let expected = [Level::Ok, Level::Note, Level::Note];
        assert_eq!(levels(&blind), expected);
        let mut odd = facts();
        odd.tried.as_mut().unwrap().features[0].answer = Answer::Unseen("out of memory".to_owned());
        assert_eq!(levels(&odd)[2], Level::Note);
    }

    #[test]
    fn this_kernel_has_what_the_program_needs() {
        let facts = Facts::read(true);
        for finding in facts.judge() {
            assert!(finding.level < Level::Warning, "{finding:?}");
        }
        assert_eq!(facts.tried.unwrap().features.len(), 14);
    }
}
