//! The images of `deploy/Dockerfile`, without a builder: what their last stages say, and their files
//! in a folder, so that a program can be started as its container would start it.
//!
//! An instruction that is not understood is an error, so nothing in the file goes unlooked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::process::{program, root};

/// Where the build stage leaves the programs.
const BUILT: &str = "/out/";

/// The file, as stages with their instructions.
pub struct Dockerfile {
    /// `ARG`s before the first stage, with their defaults.
    pub arguments: BTreeMap<String, String>,
    stages: Vec<Stage>,
}

struct Stage {
    name: String,
    from: String,
    /// Keyword and the rest.
    instructions: Vec<(String, String)>,
}

/// What a target becomes.
#[derive(Debug, Default)]
pub struct Image {
    /// The image it is made from.
    pub base: String,
    /// Copied into it: a program of the build stage, and where to.
    pub programs: Vec<(String, String)>,
    /// All `RUN`s, in order.
    pub runs: Vec<String>,
    /// `USER`.
    pub user: String,
    /// `WORKDIR`.
    pub folder: String,
    /// `ENV`.
    pub environment: BTreeMap<String, String>,
    /// `LABEL`.
    pub labels: BTreeMap<String, String>,
    /// `EXPOSE`.
    pub ports: Vec<u16>,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
    /// The command of `HEALTHCHECK`.
    pub healthcheck: Vec<String>,
}

impl Dockerfile {
    /// That of this repository.
    pub fn ours() -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string(root().join("deploy/Dockerfile"))?)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let without_comments: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect();
        let joined = without_comments.join("\n").replace("\\\n", " ");
        let mut file = Self {
            arguments: BTreeMap::new(),
            stages: Vec::new(),
        };
        for line in joined
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let (keyword, rest) = line.split_once(' ').context(line.to_owned())?;
            let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            match (keyword, file.stages.last_mut()) {
                ("FROM", _) => {
                    let (from, name) = rest.split_once(" AS ").context("a stage has a name")?;
                    file.stages.push(Stage {
                        name: name.to_owned(),
                        from: fill_in(from, &file.arguments)?,
                        instructions: Vec::new(),
                    });
                }
                ("ARG", None) => file.arguments.extend([pair(&rest)?]),
                (_, Some(stage)) => stage.instructions.push((keyword.to_owned(), rest)),
                (_, None) => bail!("{line} is in no stage"),
            }
        }
        Ok(file)
    }

    /// The names of the services' stages: those that start something.
    pub fn targets(&self) -> Vec<&str> {
        let starts = |stage: &&Stage| {
            let mut keywords = stage.instructions.iter().map(|(keyword, _)| keyword);
            keywords.any(|keyword| keyword == "ENTRYPOINT")
        };
        self.stages
            .iter()
            .filter(starts)
            .map(|stage| stage.name.as_str())
            .collect()
    }

    /// The image of a stage.
    pub fn image(&self, target: &str) -> anyhow::Result<Image> {
        let stage = self.stages.iter().find(|stage| stage.name == target);
        let stage = stage.with_context(|| format!("there is no stage {target}"))?;
        let mut image = if self.stages.iter().any(|other| other.name == stage.from) {
            self.image(&stage.from)?
        } else {
            Image {
                base: stage.from.clone(),
                ..Image::default()
            }
        };
        let mut arguments = BTreeMap::new();
        for (keyword, rest) in &stage.instructions {
            match keyword.as_str() {
                "ARG" => arguments.extend([pair(rest)?]),
                "RUN" => image.runs.push(rest.clone()),
                "USER" => image.user.clone_from(rest),
                "WORKDIR" => image.folder.clone_from(rest),
                "ENV" => image.environment.extend(pairs(rest, &arguments)?),
                "LABEL" => image.labels.extend(pairs(rest, &arguments)?),
                "EXPOSE" => {
                    for port in rest.split(' ') {
                        image.ports.push(port.parse()?);
                    }
                }
                "ENTRYPOINT" => image.entrypoint = serde_json::from_str(rest)?,
                "CMD" => image.command = serde_json::from_str(rest)?,
                "HEALTHCHECK" => {
                    let (_, command) = rest.split_once("CMD ").context("HEALTHCHECK CMD")?;
                    image.healthcheck = serde_json::from_str(command)?;
                }
                "COPY" if rest == ". ." => {}
                "COPY" => {
                    let copied = rest.strip_prefix("--from=build ").context(rest.clone())?;
                    let (from, to) = copied.split_once(' ').context(rest.clone())?;
                    let name = from.strip_prefix(BUILT).context("a program of /out")?;
                    image
                        .programs
                        .push((name.to_owned(), format!("{to}{name}")));
                }
                _ => bail!("{keyword} is not understood"),
            }
        }
        Ok(image)
    }
}

/// `NAME=VALUE`; without a value an empty one.
fn pair(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    ensure!(!name.contains(' '), "{text} is no NAME=VALUE");
    Ok((name.to_owned(), value.trim_matches('"').to_owned()))
}

/// `NAME=VALUE NAME="VALUE WITH SPACES"`.
fn pairs(
    text: &str,
    arguments: &BTreeMap<String, String>,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').context("an end of the quotes")?,
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        found.push((name.trim().to_owned(), fill_in(value, arguments)?));
        rest = after;
    }
    Ok(found)
}

/// Puts the arguments into `${NAME}`.
fn fill_in(text: &str, arguments: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut filled = text.to_owned();
    for (name, value) in arguments {
        filled = filled.replace(&format!("${{{name}}}"), value);
    }
    ensure!(!filled.contains('$'), "{text} uses what is not set");
    Ok(filled)
}

/// The files of an image, below a folder that stands for `/`.
pub struct Staged {
    folder: PathBuf,
}

impl Staged {
    /// Lays out what `image` copies, with the programs of this workspace, below `folder`.
    pub fn new(image: &Image, folder: &Path) -> anyhow::Result<Self> {
        let staged = Self {
            folder: folder.to_owned(),
        };
        std::fs::create_dir_all(staged.path(&image.folder))?;
        for (name, to) in &image.programs {
            let to = staged.path(to);
            std::fs::create_dir_all(to.parent().context("a folder")?)?;
            std::os::unix::fs::symlink(program(name)?, to)?;
        }
        Ok(staged)
    }

    /// Where the absolute `path` of the container is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// `text`, below the folder if it is an absolute path.
    pub fn inside(&self, text: &str) -> String {
        if text.starts_with('/') {
            self.path(text).display().to_string()
        } else {
            text.to_owned()
        }
    }

    /// What a container runs: `words` with `environment` and nothing else, in the image's folder.
    pub fn command(
        &self,
        image: &Image,
        words: &[String],
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Command> {
        let (first, arguments) = words.split_first().context("a command")?;
        let program = match image.programs.iter().find(|(name, _)| name == first) {
            Some((_, to)) => self.path(to),
            None => bail!("the image has no {first}"),
        };
        let mut command = Command::new(program);
        command
            .current_dir(self.path(&image.folder))
            .args(arguments.iter().map(|argument| self.inside(argument)))
            .env_clear()
            .envs(
                environment
                    .iter()
                    .map(|(name, value)| (name, self.inside(value))),
            );
        Ok(command)
    }
}
