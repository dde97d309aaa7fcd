package taskyard_test

import (
	"bufio"
	"cmp"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// server is the real binary as a process.
type server struct {
	t       testing.TB
	command *exec.Cmd
	address string
	read    chan struct{}
}

var listening = regexp.MustCompile(`listening on (\S+)`)

func startServer(t testing.TB, listen, dataDir string, settings ...string) *server {
	t.Helper()
	args := []string{"serve", "--listen", listen, "--data-dir", dataDir}
	if !slices.Contains(settings, "--workers") {
		args = append(args, "--workers", "2")
	}
	command := exec.Command(cmp.Or(os.Getenv("TASKYARD"), "taskyard"), append(args, settings...)...)
	command.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "TASKYARD_")
	}), "NO_COLOR=1")
	log, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("the server's binary, which TASKYARD names, does not start: %v", err)
	}
	s := &server{t: t, command: command, read: make(chan struct{})}
	t.Cleanup(func() {
		if s.command.ProcessState == nil {
			s.end(syscall.SIGKILL)
		}
	})
	reader, told := bufio.NewReader(log), ""
	for s.address == "" {
		line, err := reader.ReadString('\n')
		told += line
		if err != nil {
			t.Fatalf("the server did not start:\n%s", told)
		}
		if found := listening.FindStringSubmatch(line); found != nil {
			s.address = found[1]
		}
	}
	go func() {
		defer close(s.read)
		_, _ = io.Copy(io.Discard, reader)
	}()
	return s
}

func (s *server) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.command.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// end ends it by this signal and waits for it.
func (s *server) end(signal syscall.Signal) {
	_ = s.command.Process.Signal(signal)
	s.wait()
}

// wait waits for its end, which something else brings about.
func (s *server) wait() {
	<-s.read
	_ = s.command.Wait()
}
