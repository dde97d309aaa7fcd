//! Changing the tasks that are named on the command line, one after the other.
//!
//! Owns what is printed of each, and the exit code of all. Must not know what is
//! done to a task.

use taskyard_proto::v1::Task;

use super::{
    columns::Paged,
    exit::Exit,
    json,
    output::{Format, Out, WideArgs, error, printable},
    problem::Problem,
    query::show,
    render, units,
};

/// Changes each task and shows it as it stands then. One that cannot be changed is
/// told, and the others go on; the exit code is that of the first.
///
/// # Errors
/// What went wrong with the only one; a server that has gone.
pub async fn each<Answer>(
    task_ids: &[String],
    format: Format,
    change: impl Fn(String) -> Answer,
) -> Result<Exit, Problem>
where
    Answer: Future<Output = Result<Task, Problem>>,
{
    if let [task_id] = task_ids {
        show(change(task_id.clone()).await?, format)?;
        return Ok(Exit::Ok);
    }
    let mut printer = Printer { out: Out::stdout(), format, pages: Paged::default() };
    let mut exit = Exit::Ok;
    for task_id in task_ids {
        match change(task_id.clone()).await {
            Ok(task) => printer.print(task)?,
            Err(problem) if problem.exit() == Exit::Unavailable => return Err(problem),
            Err(problem) => {
                error(&format!("{}: {}", printable(task_id), problem.message()));
                exit = if exit == Exit::Ok { problem.exit() } else { exit };
            }
        }
    }
    Ok(exit)
}

struct Printer {
    out: Out,
    format: Format,
    pages: Paged,
}

impl Printer {
    fn print(&mut self, task: Task) -> Result<(), Problem> {
        self.out.line(match self.format {
            Format::Text => {
                let room = WideArgs::default().room();
                render::list::task_table(&[task], &mut self.pages, room, units::now())
            }
            Format::Json => json::task(task).to_string(),
        })?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    async fn exit(task_ids: &[&str]) -> Result<Exit, Exit> {
        let task_ids: Vec<_> = task_ids.iter().map(ToString::to_string).collect();
        let change = |task_id: String| {
            std::future::ready(match task_id.as_str() {
                "unknown" => Err(Status::not_found("no").into()),
                "gone" => Err(Status::unavailable("no").into()),
                "full" => Err(Status::resource_exhausted("no").into()),
                _ => Ok(Task { task_id, ..Task::default() }),
            })
        };
        each(&task_ids, Format::Json, change).await.map_err(|problem| problem.exit())
    }

    #[tokio::test]
    async fn the_others_go_on_and_the_first_problem_is_the_exit_code() {
        assert_eq!(exit(&["t1", "t2"]).await, Ok(Exit::Ok));
        assert_eq!(exit(&["t1", "unknown", "full", "t2"]).await, Ok(Exit::Refused));
        assert_eq!(exit(&["unknown"]).await, Err(Exit::Refused));
        assert_eq!(exit(&["t1", "gone", "unknown"]).await, Err(Exit::Unavailable));
    }
}
