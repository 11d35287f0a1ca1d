package api

import (
	"context"
	"time"
)

// Listeners is how many streams of events are open.
func (s *Server) Listeners() int { return s.streams.listeners() }

// MostStreams that there may be.
const MostStreams = mostStreams

// Beat does what Sample does in one second.
func (s *Server) Beat(ctx context.Context) { s.tell(ctx, s.survey(ctx, time.Minute)) }

// Status is made anew.
func (s *Server) Status(ctx context.Context) { s.status(ctx) }
