//! The words of the challenge's page. It says that work or an answer is asked for and was given, and no
//! more: who has given it need not be human.

/// A language.
#[derive(Debug)]
pub(super) struct Words {
    /// Its tag (RFC 5646).
    pub(super) lang: &'static str,
    title: &'static str,
    /// Where the request has to be sent again.
    pub(super) unsent: &'static str,
    sending: &'static str,
    failed: &'static str,
    /// What a bar shows.
    pub(super) progress: &'static str,
    send_again: &'static str,
    back: &'static str,
    once_more: &'static str,
    reload: &'static str,
    /// Of what is computed.
    pub(super) work: TaskWords,
    /// Of what a provider asks.
    pub(super) captcha: TaskWords,
    /// Before how to reach a human.
    pub(super) reach: &'static str,
    /// Where nobody has said how.
    pub(super) nobody: &'static str,
}

/// What is said of a task.
#[derive(Debug)]
pub(super) struct TaskWords {
    why: &'static str,
    noscript: &'static str,
    working: &'static str,
    done: &'static str,
    again: &'static str,
    cookies: &'static str,
    wrong: &'static str,
    away: &'static str,
    /// `{provider}` stands for who poses a CAPTCHA.
    pub(super) what: &'static str,
}

impl Words {
    /// What stands for a name in the page.
    pub(super) fn of(&self, name: &str) -> Option<&'static str> {
        Some(match name {
            "lang" => self.lang,
            "title" => self.title,
            "sending" => self.sending,
            "failed" => self.failed,
            "send_again" => self.send_again,
            "back" => self.back,
            "once_more" => self.once_more,
            "reload" => self.reload,
            _ => return None,
        })
    }
}

impl TaskWords {
    /// See [`Words::of`].
    pub(super) fn of(&self, name: &str) -> Option<&'static str> {
        Some(match name {
            "why" => self.why,
            "noscript" => self.noscript,
            "working" => self.working,
            "done" => self.done,
            "again" => self.again,
            "cookies" => self.cookies,
            "wrong" => self.wrong,
            "away" => self.away,
            _ => return None,
        })
    }
}

pub(super) static ENGLISH: Words = Words {
    lang: "en",
    title: "One moment, please",
    unsent: "<strong>What you have just sent was not processed, and is not kept here.</strong> Afterwards \
             you can send it again.",
    sending: "Done. The page is being opened.",
    failed: "That did not work. Please try again in a moment.",
    progress: "Progress of the calculation",
    send_again: "Send again",
    back: "Back to the form",
    once_more: "Try once more",
    reload: "Try again",
    work: TaskWords {
        why: "This site has a limit for requests like yours, and it has been reached. Before it goes on, your \
              browser has to do a calculation.",
        noscript: "The calculation needs JavaScript, which is switched off in this browser. Switch it on for \
                   this site and load the page again.",
        working: "Your browser is calculating. This usually takes a few seconds, then the page opens by itself.",
        done: "The calculation is done. Now send your form again: your browser may ask you to confirm that. If \
               it cannot, go back to the form.",
        again: "Your browser has done the calculation several times, and is asked for it again. That happens \
                when your address on the internet keeps changing (VPN, mobile network, private relay), or when \
                the cookie of this site is not kept. Stay on one network for a moment, then try once more.",
        cookies: "This site has to remember by a cookie that the calculation was done, and cookies are switched \
                  off in this browser. Allow them for this site and load the page again.",
        wrong: "The result was not accepted. Please try again.",
        away: "The result cannot be checked just now. Please try again in a moment.",
        what: "The calculation costs computing time: hardly any for you, a lot for whoever sends very many \
               requests. It says nothing about who you are, and nothing goes to anybody else.",
    },
    captcha: TaskWords {
        why: "This site has a limit for requests like yours, and it has been reached. Before it goes on, it \
              asks for a CAPTCHA.",
        noscript: "The CAPTCHA needs JavaScript, which is switched off in this browser. Switch it on for this \
                   site and load the page again.",
        working: "Please do what is asked for below. Often nothing is, and the page opens by itself.",
        done: "The CAPTCHA is done. Now send your form again: your browser may ask you to confirm that. If it \
               cannot, go back to the form.",
        again: "You have done the CAPTCHA several times, and are asked for it again. That happens when your \
                address on the internet keeps changing (VPN, mobile network, private relay), or when the cookie \
                of this site is not kept. Stay on one network for a moment, then try once more.",
        cookies: "This site has to remember by a cookie that the CAPTCHA was done, and cookies are switched off \
                  in this browser. Allow them for this site and load the page again.",
        wrong: "The answer was not accepted. Please try again.",
        away: "The CAPTCHA cannot be loaded or checked just now. Perhaps your browser or your network keeps its \
               provider away. Please try again in a moment.",
        what: "The CAPTCHA comes from {provider}, which gets your address on the internet from your browser and \
               checks the answer. This site learns whether it is content, and not who you are.",
    },
    reach: "If you do not get any further, a human can be reached here:",
    nobody: "If you do not get any further, write to the operator of this site.",
};

pub(super) static GERMAN: Words = Words {
    lang: "de",
    title: "Einen Moment, bitte",
    unsent: "<strong>Was Sie eben abgeschickt haben, wurde nicht verarbeitet und ist hier nicht \
             gespeichert.</strong> Danach können Sie es noch einmal abschicken.",
    sending: "Fertig. Die Seite wird geöffnet.",
    failed: "Das hat nicht geklappt. Bitte versuchen Sie es gleich noch einmal.",
    progress: "Fortschritt der Berechnung",
    send_again: "Noch einmal abschicken",
    back: "Zurück zum Formular",
    once_more: "Noch einmal versuchen",
    reload: "Erneut versuchen",
    work: TaskWords {
        why: "Diese Website hat für Anfragen wie Ihre eine Grenze, und die ist erreicht. Bevor es weitergeht, muss \
              Ihr Browser etwas berechnen.",
        noscript: "Die Berechnung braucht JavaScript, und das ist in diesem Browser ausgeschaltet. Schalten Sie es \
                   für diese Website ein und laden Sie die Seite neu.",
        working: "Ihr Browser rechnet. Das dauert meist wenige Sekunden, dann öffnet sich die Seite von selbst.",
        done: "Die Berechnung ist fertig. Schicken Sie Ihr Formular jetzt noch einmal ab: Ihr Browser fragt \
               vielleicht nach, ob er das soll. Wenn es so nicht geht, gehen Sie zum Formular zurück.",
        again: "Ihr Browser hat die Berechnung schon mehrmals erledigt und soll es wieder tun. Das geschieht, wenn \
                sich Ihre Adresse im Internet ständig ändert (VPN, Mobilfunk, Private Relay) oder das Cookie dieser \
                Website nicht behalten wird. Bleiben Sie einen Moment in einem Netz und versuchen Sie es dann noch \
                einmal.",
        cookies: "Diese Website muss sich mit einem Cookie merken, dass die Berechnung erledigt ist, und Cookies \
                  sind in diesem Browser ausgeschaltet. Erlauben Sie sie für diese Website und laden Sie die Seite \
                  neu.",
        wrong: "Das Ergebnis wurde nicht angenommen. Bitte versuchen Sie es noch einmal.",
        away: "Das Ergebnis lässt sich gerade nicht prüfen. Bitte versuchen Sie es gleich noch einmal.",
        what: "Die Berechnung kostet Rechenzeit: Sie kaum, jemanden, der sehr viele Anfragen schickt, viel. Sie \
               sagt nichts darüber, wer Sie sind, und nichts geht an Dritte.",
    },
    captcha: TaskWords {
        why: "Diese Website hat für Anfragen wie Ihre eine Grenze, und die ist erreicht. Bevor es weitergeht, \
              verlangt sie ein CAPTCHA.",
        noscript: "Das CAPTCHA braucht JavaScript, und das ist in diesem Browser ausgeschaltet. Schalten Sie es für \
                   diese Website ein und laden Sie die Seite neu.",
        working: "Bitte tun Sie, was unten verlangt wird. Oft ist das nichts, und die Seite öffnet sich von selbst.",
        done: "Das CAPTCHA ist erledigt. Schicken Sie Ihr Formular jetzt noch einmal ab: Ihr Browser fragt \
               vielleicht nach, ob er das soll. Wenn es so nicht geht, gehen Sie zum Formular zurück.",
        again: "Sie haben das CAPTCHA schon mehrmals erledigt und sollen es wieder tun. Das geschieht, wenn sich \
                Ihre Adresse im Internet ständig ändert (VPN, Mobilfunk, Private Relay) oder das Cookie dieser \
                Website nicht behalten wird. Bleiben Sie einen Moment in einem Netz und versuchen Sie es dann noch \
                einmal.",
        cookies: "Diese Website muss sich mit einem Cookie merken, dass das CAPTCHA erledigt ist, und Cookies sind \
                  in diesem Browser ausgeschaltet. Erlauben Sie sie für diese Website und laden Sie die Seite neu.",
        wrong: "Die Antwort wurde nicht angenommen. Bitte versuchen Sie es noch einmal.",
        away: "Das CAPTCHA lässt sich gerade nicht laden oder prüfen. Vielleicht hält Ihr Browser oder Ihr Netz den \
               Anbieter fern. Bitte versuchen Sie es gleich noch einmal.",
        what: "Das CAPTCHA kommt von {provider}. Der Anbieter bekommt von Ihrem Browser Ihre Adresse im Internet und \
               prüft die Antwort. Diese Website erfährt, ob er zufrieden ist, und nicht, wer Sie sind.",
    },
    reach: "Wenn Sie nicht weiterkommen, erreichen Sie hier einen Menschen:",
    nobody: "Wenn Sie nicht weiterkommen, schreiben Sie dem Betreiber dieser Website.",
};
