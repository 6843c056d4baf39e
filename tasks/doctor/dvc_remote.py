"""Whether DVC's default remote can be reached."""

from longreward.tasks.doctor.finding import Finding, bad, good, shown
from longreward.tasks.doctor.project import default_remote
from longreward.tasks.doctor.servers import answers
from longreward.tasks.dvc_command import RAW, dvc


async def check_remote() -> list[Finding]:
    """Asks the remote for the raw data, of which it need not have any; nothing where there is no remote."""
    name, url = default_remote()
    note = RAW.with_name(RAW.name + ".dvc")
    if name is None or url is None or not note.exists():
        return []
    if url.startswith("http"):  # of these DVC also says "new" where nobody answers
        return [answers("dvc", url, url, "check its address: `dvc remote list`")]
    ended = await dvc("status", "--cloud", "--json", "--remote", name, str(note))
    if ended.code == 0:
        return [good("dvc", f"the remote {name} answers")]
    errors = [line.removeprefix("ERROR: ") for line in ended.words.splitlines() if line.startswith("ERROR")]
    said = shown(errors[0]) if errors else "no answer"
    todo = "install what it names, or check the address and the login: `dvc remote list`"
    return [bad("dvc", f"the remote {name} cannot be used: {said}", todo)]
